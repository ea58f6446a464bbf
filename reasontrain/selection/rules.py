"""Every rule that decides by itself. A new rule is one file and one name in this union."""

from __future__ import annotations

from reasontrain.selection.advantage_entropy import AdvantageEntropy
from reasontrain.selection.contrast import Contrast
from reasontrain.selection.everything import Everything
from reasontrain.selection.prior import Prior
from reasontrain.selection.random import Random
from reasontrain.selection.rho1 import Rho1
from reasontrain.selection.sstoken import SsToken
from reasontrain.selection.tip import Tip
from reasontrain.selection.top_entropy import TopEntropy

Rule = Everything | Random | TopEntropy | Tip | AdvantageEntropy | SsToken | Prior | Rho1 | Contrast
