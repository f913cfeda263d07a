"""HOW PROMISING, without training: one proxy a file, found by the file being there; nothing of the engine.

Importing this package loads no torch; `get` imports the one proxy that is asked for.
"""

from proxies.registry import Proxy, ProxyError, check, get, names, proxy

__all__ = ["Proxy", "ProxyError", "check", "get", "names", "proxy"]
