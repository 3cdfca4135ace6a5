"""Teachers: the `Teacher` protocol and one file for each engine, loaded only when a recipe asks for it."""
