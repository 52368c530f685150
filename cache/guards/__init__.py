"""Lexical guards: what tells two questions apart that an encoder takes for one."""
