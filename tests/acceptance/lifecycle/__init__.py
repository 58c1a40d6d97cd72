"""Phases and hooks: calls, statements, what follows from them, and plugins that take part."""
