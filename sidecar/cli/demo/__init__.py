"""`make demo`: the whole story on one machine, for real, and checked.

A registry publishes three model versions through a sidecar, a deployer receives them. Redis is killed, the registry
publishes three more, Redis comes back: the deployer must have each event once and in order. Nothing is played but the
registry and the deployer: the sidecar is a process of its own, Redis is a Valkey server that gets SIGKILL.
"""

from sidecar.cli.demo.story import play

__all__ = ["play"]
