"""The scripts a person runs, against embedded mode and against programs that play a part."""
