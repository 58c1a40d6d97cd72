"""`orchestratord new`: an endpoint, or a plugin, to begin with."""
