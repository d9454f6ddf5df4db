"""Which server answers and how it is asked: what its answers depend on beside the questions."""

from __future__ import annotations

from typing import Any, Literal

from repro_rl.config import ApiSection

DECIDING = ("model", "reasoning_tokens", "extra", "limit_field", "send_seed", "system")


def server_identity(api: ApiSection, reflect_form: Literal["free", "guided"] = "free") -> dict[str, Any]:
    """Results with another identity are not continued.

    ``reflect_form``: of the reflections; a guided one also depends on how the server holds it to its form.
    """
    form = {"guided": api.guided} if reflect_form == "guided" else {}
    asked = api.model_dump(mode="json", include=set(DECIDING))
    if api.system is None:  # results of versions without the setting are of no system message
        del asked["system"]
    return {"base_url": api.base_url, **form, "api": asked}
