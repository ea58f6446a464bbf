"""`reasontrain doctor`: this installation and this machine, tried with the real code.

A check is a function that yields findings. It runs what training would run, on models of a few
million parameters, and compares it with a reference where there is one.
"""

from reasontrain.doctor.examination import examine
from reasontrain.doctor.finding import Finding, Status

__all__ = ["Finding", "Status", "examine"]
