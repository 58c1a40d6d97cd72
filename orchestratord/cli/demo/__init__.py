"""`orchestratord demo`: the example configuration at work, in one terminal."""
