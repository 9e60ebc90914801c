"""For tests: the contract of a store, and a pytest plugin for users; nothing that a run needs.

Needs pytest, and the contract pytest-asyncio. In a test module of yours::

    from murmur_streams.testing import StoreContract, StoreFactory

    class TestMyStore(StoreContract):
        @pytest.fixture
        def factory(self, tmp_path: Path) -> StoreFactory:
            return lambda **options: MyStore(tmp_path / "runs", **options)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from murmur_streams.testing.contract import StoreContract
    from murmur_streams.testing.workbench import StoreFactory, Subscriber, Workbench, wait_until

_ASSERTING = (
    "archives",
    "events",
    "feeds",
    "lifecycle",
    "listing",
    "refusals",
    "removal",
    "results",
    "seals",
    "streams",
    "workbench",
)
"""Modules whose asserts pytest shows in full."""


def __getattr__(name: str) -> object:
    # Not before it is asked for: pytest loads the plugin beside it in every session.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("pytest").register_assert_rewrite(
        *(f"murmur_streams.testing.{module}" for module in _ASSERTING)
    )
    home = "contract" if name == "StoreContract" else "workbench"
    value = getattr(import_module(f"murmur_streams.testing.{home}"), name)
    globals()[name] = value
    return value


__all__ = ["StoreContract", "StoreFactory", "Subscriber", "Workbench", "wait_until"]
