"""The ``latentvla`` command."""
