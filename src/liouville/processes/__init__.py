"""Several processes: started, finding each other, and sharing the batches of a training."""

from liouville.processes.group import join, leave, share
from liouville.processes.launcher import launch
from liouville.processes.rendezvous import LOOPBACK, connect, keep_store
from liouville.processes.sharing import Processes

__all__ = ["LOOPBACK", "Processes", "connect", "join", "keep_store", "launch", "leave", "share"]
