"""Engines that keep the logs of the bus elsewhere; the contract is ``realtime/engine.py``."""
