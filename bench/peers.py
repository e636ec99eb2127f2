"""The programs that ours is measured against: the sketch, and a stand-in for the Redis sinks of a JVM Connect worker.

Nothing here is fast or slow by neglect: the JVM has its default compilers and collector and half a gigabyte, gets bytes without
converting them, and scans no plugins.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.real.broker import Java, write_properties
from tests.real.programs import Program, free_port

from bench.setting import Setting, Worker, python_environment, unique
from bench.workloads import TTL_S

_HERE = Path(__file__).parent
_BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
_FETCH_S = 600
_COMPILE_S = 120


def sketch(setting: Setting, topic: str, batch: int) -> Worker:
    """Return the sketch on this topic, in a group of its own, not started yet."""
    options = {
        "--bootstrap": setting.kafka.bootstrap,
        "--topic": topic,
        "--group": unique("sketch"),
        "--redis-port": setting.redis_port,
        "--ttl-s": TTL_S,
        "--batch": batch,
    }
    # -P: beside the program lie modules that are not meant for its path.
    argv = [sys.executable, "-P", str(_HERE / "sketch.py"), *(str(word) for option in options.items() for word in option)]
    return Worker(Program("sketch", argv, setting.scratch("sketch"), python_environment()), 0)


def standin(setting: Setting, topic: str, shape: str, records_a_poll: int) -> Worker:
    """Return a JVM worker with the stand-in sink on this topic, not started yet; ``shape`` is ``sync`` or ``pipeline``."""
    java, port, directory = Java("4.1"), free_port(), setting.scratch("standin")
    name = unique("standin")
    worker = {
        "bootstrap.servers": setting.kafka.bootstrap,
        "listeners": f"http://127.0.0.1:{port}",
        "key.converter": _BYTES,
        "value.converter": _BYTES,
        "offset.storage.file.filename": str(directory / "connect.offsets"),
        "plugin.path": str(_plugin(setting).parent),
        "plugin.discovery": "service_load",
    }
    connector = {
        "name": name,
        "connector.class": "bench.StandinSink",
        "tasks.max": "1",
        "topics": topic,
        "redis.host": "127.0.0.1",
        "redis.port": str(setting.redis_port),
        "redis.ttl": str(TTL_S),
        "shape": shape,
        "consumer.override.max.poll.records": str(records_a_poll),
    }
    files = [write_properties(directory / "worker.properties", worker), write_properties(directory / "connector.properties", connector)]
    options = ["-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", _class_path(java.jars)]
    argv = [java.binary, *options, "org.apache.kafka.connect.cli.ConnectStandalone", *map(str, files)]
    return Worker(Program("standin", argv, directory), port)


def _class_path(*directories: Path) -> str:
    return os.pathsep.join(str(jar) for directory in directories for jar in sorted(directory.glob("*.jar")))


@cache
def _plugin(setting: Setting) -> Path:
    """Return the stand-in's plugin directory, built on first use.

    Raises:
        RuntimeError: it could not be built here.
    """
    client, directory = _client_jars(), setting.scratch("standin-plugin")
    plugin, classes = directory / "plugins" / "standin", directory / "classes"
    services = classes / "META-INF" / "services" / "org.apache.kafka.connect.sink.SinkConnector"
    services.parent.mkdir(parents=True)
    services.write_text("bench.StandinSink\n")
    plugin.mkdir(parents=True)
    sources = map(str, sorted((_HERE / "standin").glob("*.java")))
    _run("javac", "-cp", _class_path(Java("4.1").jars, client), "-d", str(classes), *sources, timeout_s=_COMPILE_S)
    _run("jar", "cf", str(plugin / "standin.jar"), "-C", str(classes), ".", timeout_s=_COMPILE_S)
    for jar in client.glob("*.jar"):
        (plugin / jar.name).symlink_to(jar)
    return plugin


def _client_jars() -> Path:
    """Return the directory with the Redis client's jars, fetched on first use and kept where the tests keep theirs."""
    pom = _HERE / "standin" / "pom.xml"
    cache_directory = Java("4.1").jars.parent
    target = cache_directory / f"standin-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if not target.is_dir():
        part = target.with_suffix(f".{os.getpid()}")
        arguments = [f"-DoutputDirectory={part.absolute()}", "-DexcludeGroupIds=org.slf4j"]  # the worker has its own
        _run("mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", *arguments, timeout_s=_FETCH_S)
        part.rename(target)
    return target


def _run(program: str, *arguments: str, timeout_s: float) -> None:
    path = shutil.which(program)
    if path is None:
        raise RuntimeError(f"{program} is missing: apt-get install maven openjdk-17-jdk-headless")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
