"""What of a run its methods' authors leave open and is our choice: tables mark such runs as "our reading"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine import options

_STATED = ("at", "trades")  # the methods that the paper gives lambda for
_GAMMA = "the TRAIN paper does not print gamma: 1, with the mean squared error of LBGAT's code"
_PRIME = "TRAIN' is printed without a formula; here the gradient of L_TP reaches M as well"


def reading(settings: Mapping[str, Any]) -> str:
    """The words of a recipe (dotted keys) and of its method and terms; "" if there are none."""
    method = str(settings.get("method.name"))
    enabled = settings.get("topology.enabled") is True
    unstated = enabled and str(settings.get("data.dataset")).startswith("cifar") and method not in _STATED
    said = [
        settings.get("our_reading"),
        _PRIME if enabled and settings.get("topology.variant") == "prime" else "",
        _GAMMA if method == "lbgat" and settings.get("method.form") == "paper" else "",
        f"the TRAIN paper gives no lambda for {method}: that of the data set" if unstated else "",
        *constants(settings, "inferred"),
    ]
    return "; ".join(dict.fromkeys(text for text in said if isinstance(text, str) and text))


def constants(settings: Mapping[str, Any], name: str) -> list[Any]:
    """The constant `name` of the method and the terms of a recipe with dotted keys; unknown ones have none."""
    terms = dict.fromkeys(key.split(".")[1] for key in settings if key.startswith("terms."))
    return options.constants(str(settings.get("method.name")), terms, name)
