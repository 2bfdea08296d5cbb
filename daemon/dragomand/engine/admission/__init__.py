"""The one door that every turn and every API call goes through."""

from .asked import ANY_MODELS as ANY_MODELS
from .asked import Asked as Asked
from .asked import Told as Told
from .asked import WaitingSink as WaitingSink
from .asked import family_of as family_of
from .asked import untold as untold
from .door import Admission as Admission
from .kept import Keeper as Keeper
from .kept import replay as replay
from .permit import Permit as Permit
from .settings import DoorSettings as DoorSettings
from .settings import Share as Share
from .view import explained as explained
from .view import state_of as state_of
