"""The headers of a site that trusts nothing."""

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

__all__ = ["POLICY", "strict"]

POLICY: Final = "default-src 'self'; require-trusted-types-for 'script'; object-src 'none'"


def strict(respond: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Have every page come under the policy."""

    def respond_strictly(request: HttpRequest) -> HttpResponse:
        response = respond(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return respond_strictly
