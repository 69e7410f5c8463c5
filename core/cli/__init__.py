"""The command line, one file per command. Only here are core, backends and agent put together."""
