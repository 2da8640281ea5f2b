"""One module a suite: from encoded images to rows and tables. Between the engine, which knows no question, and the
maths, which knows no files."""
