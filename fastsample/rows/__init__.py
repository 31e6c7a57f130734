"""Draws from stored rows, in pieces: on this machine, or wherever an engine takes the pieces.

What a row draws depends on its number among all rows and on nothing else of how they are cut up,
so that pieces may be of any size, in any order, on any machine, and repeated. `draw_file` draws a
whole store into a file and can be stopped and resumed; `RowSampler` is the function that dask, Ray
Data or any other engine maps over pieces. Nothing here imports an engine unless it is asked for.
"""

from .columns import read_columns
from .draw import RowSampler
from .pieces import draw_piece, draw_pieces, pieces
from .run import Drawn, draw_file
from .stored import Stored, open_logits

__all__ = [
    "Drawn",
    "RowSampler",
    "Stored",
    "draw_file",
    "draw_piece",
    "draw_pieces",
    "open_logits",
    "pieces",
    "read_columns",
]
