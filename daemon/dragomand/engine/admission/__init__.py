"""The one door that every turn and every API call goes through."""

from .asked import ANY_MODELS as ANY_MODELS
from .asked import Asked as Asked
from .asked import Told as Told
from .asked import WaitingSink as WaitingSink
from .asked import family_of as family_of
from .asked import untold as untold
from .door import Admission as Admission
from .permit import Permit as Permit
from .settings import DoorSettings as DoorSettings
from .settings import Share as Share
