"""What is installed, and what it offers, by name."""

from explainkit.registry.discovery import PluginRow
from explainkit.registry.lookup import (
    clear_cache,
    find,
    offer,
    offers,
    plugins,
    renderer_for,
)

__all__ = ["PluginRow", "clear_cache", "find", "offer", "offers", "plugins", "renderer_for"]
