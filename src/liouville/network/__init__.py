"""Networks: a lift, flows with connectors between them, a head."""

from liouville.network.connectors import ChannelsLast, Connector, Half, Lift, Place
from liouville.network.evaluation import evaluation_mode, outputs_of
from liouville.network.network import Network

__all__ = ["ChannelsLast", "Connector", "Half", "Lift", "Network", "Place", "evaluation_mode", "outputs_of"]
