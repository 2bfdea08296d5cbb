"""The Messages API as an upstream: plain prompts, without tools or a folder. `MessagesApi` is the way in."""

from dragomand.upstream.messages_api.client import MessagesApi
from dragomand.upstream.messages_api.endpoint import CloudSettings, Endpoint
from dragomand.upstream.messages_api.settings import DirectSettings

__all__ = ["CloudSettings", "DirectSettings", "Endpoint", "MessagesApi"]
