"""One file per stage, with the names of ``csrc/stages/``; ``cut.py`` walks a row through them."""
