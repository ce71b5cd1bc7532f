"""JAX's persistent compilation cache, so that the second process does not compile what the first one did."""

import os
import sys
from pathlib import Path


def use_cache() -> None:
    """Point JAX at the user's cache folder unless a cache is configured already; `VANTAGE_CACHE=` (empty) turns it
    off.
    """
    import jax

    folder = os.environ.get("VANTAGE_CACHE", str(_user_cache() / "vantage" / "xla"))
    if not folder or getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def make_room(share: float = 0.5) -> None:
    """Let go of JAX's compiled programs once this process holds that share of the memory maps that Linux grants it.

    An agent's programs take some hundred maps, JAX keeps every program, and past the limit the process dies of a
    segmentation fault, after some 190 agents. What is still needed is compiled again, or read from the cache.
    """
    import jax

    limit = Path("/proc/sys/vm/max_map_count")
    if limit.exists() and maps() > share * int(limit.read_text()):
        jax.clear_caches()


def maps() -> int:
    """How many memory maps this process holds, by Linux's count."""
    with Path("/proc/self/maps").open("rb") as lines:
        return sum(1 for _ in lines)


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
