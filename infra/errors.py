"""What can go wrong with the servers that every process stands on.

InfraError
├── Unavailable             a server does not answer, or not in time: wait, then try again
│   ├── KafkaUnavailable
│   ├── RegistryUnavailable
│   ├── ObjectStoreUnavailable
│   ├── ClickHouseUnavailable
│   └── DiskFull            this machine has no room: an operator frees some, the work goes on
├── AccessRefused           a server answers, and lets us in under no such name and password
├── SettingInvalid          a client cannot work with a setting: wrong use, like what settings refuse themselves
│   └── SettingMissing      a setting that has no default is needed for this
├── ObjectMissing           there is no such object
├── RowsRefused             ClickHouse takes none of these rows for what is in them
├── SpillUnusable           files of open episodes cannot be written where the settings say, or read again
├── TransactionAborted      the transaction left no trace: do the work again
├── ProducerFenced          another process took over: this producer is finished
├── GroupRefused            the brokers do not take us into a group: they lack what it needs, or it is full
├── OffsetsExpired          the log no longer holds what was not yet read
└── DeploymentConflict      the cluster is not what the repository describes, and must not be bent
"""


class InfraError(Exception):
    """Base of everything that can go wrong with the servers."""


class Unavailable(InfraError):
    """A server does not answer, or not in time. Recoverable: wait, then try again."""


class KafkaUnavailable(Unavailable):
    """The brokers do not answer."""


class RegistryUnavailable(Unavailable):
    """The schema registry does not answer."""


class ObjectStoreUnavailable(Unavailable):
    """The object store does not answer."""


class ClickHouseUnavailable(Unavailable):
    """ClickHouse does not answer."""


class AccessRefused(InfraError):
    """A server knows neither our name nor our password. Fatal: the settings are wrong."""


class SettingInvalid(InfraError):
    """A setting that only its client could judge. Wrong use: the text names it."""


class SettingMissing(SettingInvalid):
    """A setting without a default is needed for this. Wrong use: the text names it."""


class DiskFull(Unavailable):
    """This machine's disk takes no more: wait until somebody made room."""


class SpillUnusable(InfraError):
    """The folder for what memory cannot hold cannot be used, or what was put there cannot be read."""


class ObjectMissing(InfraError):
    """There is no object under this key."""


class RowsRefused(InfraError):
    """ClickHouse does not take these rows together. One that is refused alone never will be taken."""


class TransactionAborted(InfraError):
    """The transaction was rolled back; nothing of it is visible. Recoverable: do the work again."""


class ProducerFenced(InfraError):
    """A newer producer with the same transactional id exists. Fatal for this one."""


class GroupRefused(InfraError):
    """The brokers let this client into no consumer group, now or later. Fatal: the text says what they need."""


class OffsetsExpired(InfraError):
    """Records were deleted by retention before they were read. Fatal: an operator must decide."""


class DeploymentConflict(InfraError):
    """The cluster differs from the repository in a way that cannot be mended by itself."""
