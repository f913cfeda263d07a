"""HOW PROMISING, without training. One proxy a file; torch, but nothing of the engine."""

from proxies.registry import Proxy, ProxyError, get, names, proxy

__all__ = ["Proxy", "ProxyError", "get", "names", "proxy"]
