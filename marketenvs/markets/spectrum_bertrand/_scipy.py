"""SciPy's functions as ``Any``: its type stubs reject arrays that broadcast and callables with extra arguments."""

from typing import Any

from scipy import special as _special
from scipy.linalg import lu_factor as _lu_factor
from scipy.linalg import lu_solve as _lu_solve
from scipy.optimize import elementwise as _elementwise
from scipy.optimize import linprog as _linprog

special: Any = _special
elementwise: Any = _elementwise
linprog: Any = _linprog
lu_factor: Any = _lu_factor
lu_solve: Any = _lu_solve
