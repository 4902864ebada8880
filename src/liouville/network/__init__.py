"""Networks: a lift, flows with connectors between them, a head."""

from liouville.network.connectors import ChannelsLast, Connector, Half, Lift, Place
from liouville.network.network import Network

__all__ = ["ChannelsLast", "Connector", "Half", "Lift", "Network", "Place"]
