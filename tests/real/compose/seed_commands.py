"""Every code block of the original README, in its order: what the tests run of it, and which output they expect.

The text stands here byte for byte; ``test_compose_tour`` runs it, and holds this table against the original where that is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

VALUE: Final = r'^"1\d{12}"$'
"""What redis-cli prints on a terminal for a beat: its time in ms, quoted."""
TTL: Final = r"^\(integer\) (60|[1-5]?\d)$"
"""What redis-cli prints on a terminal for a TTL of at most 60 s."""
SUCCESS: Final = (
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] INFO Successfully processed \d+ records and updated Redis heartbeat "
    r"\(com\.example\.RedisHeartbeatSinkTask\)$"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a block, run on a terminal as a person runs it."""

    command: str
    expects: str = ""
    """A pattern that its output shows; it ends with 0 in any case."""
    timeout_s: float = 60.0
    left_out: str = ""
    """Why the test does not run it, if so."""


@dataclass(frozen=True, slots=True)
class Block:
    """A code block. ``steps`` are its commands; where there are none, ``Tour`` has a method of the block's name."""

    name: str
    language: str
    text: str
    steps: tuple[Step, ...] = ()


BLOCKS: Final = (
    Block(
        "start",
        "bash",
        ("# 실행 권한 부여 및 전체 환경 시작\nchmod +x run.sh\n./run.sh\n"),
        (
            Step("chmod +x run.sh"),
            Step("./run.sh", r"RUNNING", timeout_s=240),
        ),
    ),
    Block(
        "manual-start",
        "bash",
        (
            "# 모든 서비스 시작\n"
            "docker compose up -d\n"
            "\n"
            "# 30초 대기 후 connector 설정\n"
            "sleep 30\n"
            "docker compose exec test-runner /scripts/setup.sh\n"
        ),
        (
            Step("docker compose up -d", r"test-runner-1 +(Running|Started)", timeout_s=120),
            Step("sleep 30", left_out="setup.sh waits by itself, for as long as it takes"),
            Step("docker compose exec test-runner /scripts/setup.sh", r"RUNNING", timeout_s=90),
        ),
    ),
    Block(
        "status",
        "bash",
        ("curl http://localhost:8083/connectors/redis-heartbeat-sink/status\n"),
    ),
    Block(
        "status-reply",
        "json",
        (
            "{\n"
            '  "name": "redis-heartbeat-sink",\n'
            '  "connector": { "state": "RUNNING", "worker_id": "kafka-connect:8083" },\n'
            '  "tasks": [{ "id": 0, "state": "RUNNING", "worker_id": "kafka-connect:8083" }],\n'
            '  "type": "sink"\n'
            "}\n"
        ),
    ),
    Block(
        "single-message",
        "bash",
        (
            "docker compose exec test-runner bash -c \\\n"
            "  'echo \"test-$(date)\" | kafka-console-producer --topic heartbeat-topic --bootstrap-server kafka:29092'\n"
        ),
        (
            Step(
                "docker compose exec test-runner bash -c \\\n"
                "  'echo \"test-$(date)\" | kafka-console-producer --topic heartbeat-topic --bootstrap-server kafka:29092'"
            ),
        ),
    ),
    Block(
        "continuous-messages",
        "bash",
        ("docker compose exec test-runner /scripts/test-producer.sh\n"),
    ),
    Block(
        "check-the-key",
        "bash",
        (
            "# heartbeat 키 값 확인\n"
            "docker compose exec redis redis-cli GET heartbeat\n"
            "\n"
            "# TTL 확인 (60초부터 카운트다운)\n"
            "docker compose exec redis redis-cli TTL heartbeat\n"
        ),
        (
            Step("docker compose exec redis redis-cli GET heartbeat", VALUE),
            Step("docker compose exec redis redis-cli TTL heartbeat", TTL),
        ),
    ),
    Block(
        "check-the-key-replies",
        "bash",
        (
            "$ docker compose exec redis redis-cli GET heartbeat\n"
            '"1755138932496"  # 타임스탬프\n'
            "\n"
            "$ docker compose exec redis redis-cli TTL heartbeat\n"
            "(integer) 54     # 남은 TTL 초\n"
        ),
    ),
    Block(
        "watch-for-a-minute",
        "bash",
        (
            "# 5초마다 TTL 확인\n"
            "for i in {1..12}; do\n"
            '  echo "=== $i회차 확인 ==="\n'
            "  docker compose exec redis redis-cli TTL heartbeat\n"
            "  sleep 5\n"
            "done\n"
        ),
    ),
    Block(
        "silence",
        "bash",
        (
            "# 메시지 생성 프로세스 중단\n"
            "docker compose exec test-runner pkill -f kafka-console-producer\n"
            "\n"
            "# TTL 감소 관찰 (60초 후 키 만료)\n"
            "watch -n 1 'docker compose exec redis redis-cli TTL heartbeat'\n"
        ),
    ),
    Block(
        "recovery",
        "bash",
        (
            "# 새 메시지 전송으로 heartbeat 복구\n"
            "docker compose exec test-runner bash -c \\\n"
            "  'echo \"recovery-$(date)\" | kafka-console-producer --topic heartbeat-topic --bootstrap-server kafka:29092'\n"
            "\n"
            "# 키가 다시 생성되었는지 확인\n"
            "docker compose exec redis redis-cli TTL heartbeat\n"
        ),
        (
            Step(
                "docker compose exec test-runner bash -c \\\n"
                "  'echo \"recovery-$(date)\" | kafka-console-producer --topic heartbeat-topic --bootstrap-server kafka:29092'"
            ),
            Step("docker compose exec redis redis-cli TTL heartbeat", TTL),
        ),
    ),
    Block(
        "change-the-ttl",
        "json",
        ('{\n  "config": {\n    "redis.ttl": "120" // 120초로 변경\n  }\n}\n'),
    ),
    Block(
        "change-the-key",
        "json",
        ('{\n  "config": {\n    "redis.key": "my-service-heartbeat"\n  }\n}\n'),
    ),
    Block(
        "follow-the-log",
        "bash",
        ("docker compose logs -f kafka-connect\n"),
    ),
    Block(
        "success-line",
        "",
        (
            "[2025-08-14 02:31:27,438] INFO Successfully processed 1 records "
            "and updated Redis heartbeat (com.example.RedisHeartbeatSinkTask)\n"
        ),
    ),
    Block(
        "restart-the-connector",
        "bash",
        ("curl -X POST http://localhost:8083/connectors/redis-heartbeat-sink/restart\n"),
    ),
    Block(
        "restart-everything",
        "bash",
        ("docker compose down\ndocker compose up -d\nsleep 30\ndocker compose exec test-runner /scripts/setup.sh\n"),
        (
            Step("docker compose down", r"kafka-connect-1 +Removed", timeout_s=90),
            Step("docker compose up -d", r"test-runner-1 +Started", timeout_s=120),
            Step("sleep 30", left_out="setup.sh waits by itself, for as long as it takes"),
            Step("docker compose exec test-runner /scripts/setup.sh", r"unchanged(.|\n)*RUNNING", timeout_s=90),
        ),
    ),
    Block(
        "shell-monitor",
        "bash",
        (
            "#!/bin/bash\n"
            "# heartbeat-monitor.sh\n"
            "\n"
            'REDIS_HOST="localhost"\n'
            'REDIS_PORT="6379"\n'
            "ALERT_THRESHOLD=10  # TTL이 10초 이하일 때 알림\n"
            "\n"
            "while true; do\n"
            "    TTL=$(redis-cli -h $REDIS_HOST -p $REDIS_PORT TTL heartbeat 2>/dev/null)\n"
            "\n"
            '    if [ "$TTL" = "-2" ]; then\n'
            '        echo "⚠️  ALERT: Heartbeat key expired! System may be down."\n'
            "        # 여기에 알림 로직 추가 (Slack, 이메일 등)\n"
            '    elif [ "$TTL" -lt "$ALERT_THRESHOLD" ] && [ "$TTL" -gt "0" ]; then\n'
            '        echo "🟡 WARNING: Heartbeat TTL low: ${TTL}s"\n'
            "    else\n"
            '        echo "✅ OK: Heartbeat TTL: ${TTL}s"\n'
            "    fi\n"
            "\n"
            "    sleep 5\n"
            "done\n"
        ),
    ),
    Block(
        "prometheus",
        "yaml",
        (
            "# docker-compose.yml에 추가\n"
            "redis-exporter:\n"
            "  image: oliver006/redis_exporter\n"
            "  environment:\n"
            '    REDIS_ADDR: "redis:6379"\n'
            "  ports:\n"
            '    - "9121:9121"\n'
        ),
    ),
    Block(
        "project-tree",
        "",
        (
            "sink-connector-research/\n"
            "├── 📋 README.md                    # 이 파일\n"
            "├── 🐳 docker-compose.yml           # Docker Compose 설정\n"
            "├── 🚀 run.sh                      # 원클릭 실행 스크립트\n"
            "├── 📦 connector/                  # Java Connector 소스\n"
            "│   ├── 📄 pom.xml                # Maven 설정\n"
            "│   ├── 🐳 Dockerfile.build       # 빌드용 Dockerfile\n"
            "│   └── 📁 src/main/java/com/example/\n"
            "│       ├── 🔌 RedisHeartbeatSinkConnector.java\n"
            "│       ├── ⚙️  RedisHeartbeatSinkConnectorConfig.java\n"
            "│       └── 🔄 RedisHeartbeatSinkTask.java\n"
            "├── ⚙️  config/                    # Connector 설정\n"
            "│   └── 📄 redis-heartbeat-sink.json\n"
            "└── 📜 scripts/                    # 유틸리티 스크립트\n"
            "    ├── 🛠️  setup.sh              # 초기 설정\n"
            "    ├── 📤 test-producer.sh       # 메시지 생성기\n"
            "    └── 👁️  check-redis.sh        # Redis 상태 확인\n"
        ),
    ),
    Block(
        "shipped-config",
        "json",
        (
            "{\n"
            '  "name": "redis-heartbeat-sink",\n'
            '  "config": {\n'
            '    "connector.class": "com.example.RedisHeartbeatSinkConnector",\n'
            '    "tasks.max": "1",\n'
            '    "topics": "heartbeat-topic",\n'
            '    "redis.host": "redis",\n'
            '    "redis.port": "6379",\n'
            '    "redis.key": "heartbeat",\n'
            '    "redis.ttl": "60",\n'
            '    "redis.database": "0",\n'
            '    "key.converter": "org.apache.kafka.connect.storage.StringConverter",\n'
            '    "value.converter": "org.apache.kafka.connect.storage.StringConverter"\n'
            "  }\n"
            "}\n"
        ),
    ),
    Block(
        "use-case-microservice",
        "bash",
        (
            "# 서비스에서 주기적으로 heartbeat 전송\n"
            '*/30 * * * * echo "service-alive-$(date)" | kafka-console-producer --topic heartbeat-topic --bootstrap-server kafka:29092\n'
        ),
    ),
    Block(
        "use-case-batch-job",
        "bash",
        (
            "# 배치 작업 시작 시 heartbeat 활성화\n"
            'echo "batch-start-$(date)" | kafka-console-producer --topic heartbeat-topic --bootstrap-server kafka:29092\n'
            "\n"
            "# 배치 작업 중 주기적 업데이트\n"
            "while [[ 배치작업중 ]]; do\n"
            '    echo "batch-running-$(date)" | kafka-console-producer --topic heartbeat-topic --bootstrap-server kafka:29092\n'
            "    sleep 30\n"
            "done\n"
        ),
    ),
    Block(
        "use-case-alert",
        "bash",
        (
            "# 모니터링 스크립트\n"
            'if redis-cli TTL heartbeat | grep -q "\\-2"; then\n'
            '    curl -X POST https://hooks.slack.com/... -d \'{"text":"🚨 System heartbeat lost!"}\'\n'
            "fi\n"
        ),
    ),
    Block(
        "clean-up",
        "bash",
        (
            "# 모든 컨테이너 중지 및 삭제\n"
            "docker compose down\n"
            "\n"
            "# 볼륨까지 완전 삭제\n"
            "docker compose down -v\n"
            "\n"
            "# 사용하지 않는 이미지 정리\n"
            "docker image prune -f\n"
        ),
        (
            Step("docker compose down", r"kafka-connect-1 +Removed", timeout_s=90),
            Step("docker compose down -v", r"redis-data +Removed", timeout_s=90),
            Step("docker image prune -f", left_out="it removes images of other projects on this machine"),
        ),
    ),
)

SUPPORT: Final = (
    Step("docker compose logs kafka-connect", SUCCESS),
    Step("curl http://localhost:8083/connectors/redis-heartbeat-sink/status", r'"state": ?"RUNNING"'),
    Step("docker compose exec redis redis-cli INFO", r"^redis_version:\d"),
    Step("docker compose exec test-runner kafka-topics --list --bootstrap-server kafka:29092", r"^heartbeat-topic$"),
)
"""The commands of the original's last section, which stand in its running text."""
