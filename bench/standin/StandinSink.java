package bench;

import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.sink.SinkConnector;

/** Names {@link StandinSinkTask} to a Connect worker; its whole configuration is the task's. */
public class StandinSink extends SinkConnector {
  private Map<String, String> config;

  @Override
  public void start(Map<String, String> config) {
    this.config = config;
  }

  @Override
  public Class<? extends Task> taskClass() {
    return StandinSinkTask.class;
  }

  @Override
  public List<Map<String, String>> taskConfigs(int tasks) {
    return Collections.nCopies(tasks, config);
  }

  @Override
  public void stop() {}

  @Override
  public ConfigDef config() {
    return new ConfigDef();
  }

  @Override
  public String version() {
    return "1";
  }
}
