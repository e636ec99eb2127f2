package bench;

import java.util.Collection;
import java.util.Map;
import org.apache.kafka.connect.errors.RetriableException;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.Pipeline;
import redis.clients.jedis.exceptions.JedisException;
import redis.clients.jedis.params.SetParams;

/**
 * Stands in for the Redis sinks that people run on a JVM worker; it is nobody's product. Shape "sync" waits for Redis after every record,
 * as sinks that handle one record at a time do; "pipeline" sends a whole put() before it waits, the best that a plain Connect sink can do.
 */
public class StandinSinkTask extends SinkTask {
  private Jedis redis;
  private SetParams expiry;
  private boolean pipelining;

  @Override
  public void start(Map<String, String> config) {
    redis = new Jedis(config.get("redis.host"), Integer.parseInt(config.get("redis.port")));
    expiry = SetParams.setParams().ex(Long.parseLong(config.get("redis.ttl")));
    pipelining = config.get("shape").equals("pipeline");
  }

  @Override
  public void put(Collection<SinkRecord> records) {
    try {
      if (pipelining && !records.isEmpty()) {
        writeAtOnce(records);
      } else {
        for (SinkRecord record : records) {
          redis.set((byte[]) record.key(), (byte[]) record.value(), expiry);
        }
      }
    } catch (JedisException e) {
      throw new RetriableException(e);
    }
  }

  private void writeAtOnce(Collection<SinkRecord> records) {
    try (Pipeline pipeline = redis.pipelined()) {
      for (SinkRecord record : records) {
        pipeline.set((byte[]) record.key(), (byte[]) record.value(), expiry);
      }
      pipeline.sync();
    }
  }

  @Override
  public void stop() {
    if (redis != null) {
      redis.close();
    }
  }

  @Override
  public String version() {
    return "1";
  }
}
