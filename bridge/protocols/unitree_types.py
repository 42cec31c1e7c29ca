"""The message types of Unitree robots, go and hg families, as their firmware knows them.

Names, order and kinds are the vendor's to the byte: a peer compares digests of them, and firmware
on an older DDS may die of types that it cannot parse (`octet` is what it expects, not `uint8`).
"""

from __future__ import annotations

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols.dds import Array, Kind, Sequence, Struct, digests

_GO, _HG, _API = "unitree_go.msg.dds_.", "unitree_hg.msg.dds_.", "unitree_api.msg.dds_."


def _struct(name: str, /, **fields: Kind) -> Struct:
    return Struct(name, tuple(fields.items()))


# The go family: Go2, B2, H1.

GO_MOTOR_COMMAND = _struct(
    _GO + "MotorCmd_",
    mode="octet",
    q="float32",
    dq="float32",
    tau="float32",
    kp="float32",
    kd="float32",
    reserve=Array("uint32", 3),
)
GO_LOW_COMMAND = _struct(
    _GO + "LowCmd_",
    head=Array("octet", 2),
    level_flag="octet",
    frame_reserve="octet",
    sn=Array("uint32", 2),
    version=Array("uint32", 2),
    bandwidth="uint16",
    motor_cmd=Array(GO_MOTOR_COMMAND, 20),
    bms_cmd=_struct(_GO + "BmsCmd_", off="octet", reserve=Array("octet", 3)),
    wireless_remote=Array("octet", 40),
    led=Array("octet", 12),
    fan=Array("octet", 2),
    gpio="octet",
    reserve="uint32",
    crc="uint32",
)
GO_IMU = _struct(
    _GO + "IMUState_",
    quaternion=Array("float32", 4),
    gyroscope=Array("float32", 3),
    accelerometer=Array("float32", 3),
    rpy=Array("float32", 3),
    temperature="octet",
)
GO_MOTOR_STATE = _struct(
    _GO + "MotorState_",
    mode="octet",
    q="float32",
    dq="float32",
    ddq="float32",
    tau_est="float32",
    q_raw="float32",
    dq_raw="float32",
    ddq_raw="float32",
    temperature="octet",
    lost="uint32",
    reserve=Array("uint32", 2),
)
GO_BATTERY = _struct(
    _GO + "BmsState_",
    version_high="octet",
    version_low="octet",
    status="octet",
    soc="octet",
    current="int32",
    cycle="uint16",
    bq_ntc=Array("octet", 2),
    mcu_ntc=Array("octet", 2),
    cell_vol=Array("uint16", 15),
)
GO_LOW_STATE = _struct(
    _GO + "LowState_",
    head=Array("octet", 2),
    level_flag="octet",
    frame_reserve="octet",
    sn=Array("uint32", 2),
    version=Array("uint32", 2),
    bandwidth="uint16",
    imu_state=GO_IMU,
    motor_state=Array(GO_MOTOR_STATE, 20),
    bms_state=GO_BATTERY,
    foot_force=Array("int16", 4),
    foot_force_est=Array("int16", 4),
    tick="uint32",
    wireless_remote=Array("octet", 40),
    bit_flag="octet",
    adc_reel="float32",
    temperature_ntc1="octet",
    temperature_ntc2="octet",
    power_v="float32",
    power_a="float32",
    fan_frequency=Array("uint16", 4),
    reserve="uint32",
    crc="uint32",
)
SPORT_MODE_STATE = _struct(
    _GO + "SportModeState_",
    stamp=_struct(_GO + "TimeSpec_", sec="int32", nanosec="uint32"),
    error_code="uint32",
    imu_state=GO_IMU,
    mode="octet",
    progress="float32",
    gait_type="octet",
    foot_raise_height="float32",
    position=Array("float32", 3),
    body_height="float32",
    velocity=Array("float32", 3),
    yaw_speed="float32",
    range_obstacle=Array("float32", 4),
    foot_force=Array("int16", 4),
    foot_position_body=Array("float32", 12),
    foot_speed_body=Array("float32", 12),
    path_point=Array(
        _struct(
            _GO + "PathPoint_",
            t_from_start="float32",
            x="float32",
            y="float32",
            yaw="float32",
            vx="float32",
            vy="float32",
            vyaw="float32",
        ),
        10,
    ),
)

# The hg family: G1, H1-2.

HG_LOW_COMMAND = _struct(
    _HG + "LowCmd_",
    mode_pr="octet",
    mode_machine="octet",
    motor_cmd=Array(
        _struct(
            _HG + "MotorCmd_",
            mode="octet",
            q="float32",
            dq="float32",
            tau="float32",
            kp="float32",
            kd="float32",
            reserve="uint32",
        ),
        35,
    ),
    reserve=Array("uint32", 4),
    crc="uint32",
)
HG_LOW_STATE = _struct(
    _HG + "LowState_",
    version=Array("uint32", 2),
    mode_pr="octet",
    mode_machine="octet",
    tick="uint32",
    imu_state=_struct(
        _HG + "IMUState_",
        quaternion=Array("float32", 4),
        gyroscope=Array("float32", 3),
        accelerometer=Array("float32", 3),
        rpy=Array("float32", 3),
        temperature="int16",
    ),
    motor_state=Array(
        _struct(
            _HG + "MotorState_",
            mode="octet",
            q="float32",
            dq="float32",
            ddq="float32",
            tau_est="float32",
            temperature=Array("int16", 2),
            vol="float32",
            sensor=Array("uint32", 2),
            motorstate="uint32",
            reserve=Array("uint32", 4),
        ),
        35,
    ),
    wireless_remote=Array("octet", 40),
    reserve=Array("uint32", 4),
    crc="uint32",
)

# Requests to the services on board.

_IDENTITY = _struct(_API + "RequestIdentity_", id="int64", api_id="int64")
REQUEST = _struct(
    _API + "Request_",
    header=_struct(
        _API + "RequestHeader_",
        identity=_IDENTITY,
        lease=_struct(_API + "RequestLease_", id="int64"),
        policy=_struct(_API + "RequestPolicy_", priority="int32", noreply="bool"),
    ),
    parameter="string",
    binary=Sequence("octet"),
)
RESPONSE = _struct(
    _API + "Response_",
    header=_struct(
        _API + "ResponseHeader_",
        identity=_IDENTITY,
        status=_struct(_API + "ResponseStatus_", code="int32"),
    ),
    data="string",
    binary=Sequence("octet"),
)

# First 12 hex digits of SHA-256 of the vendor's own type information and type map.
DIGESTS = {
    GO_LOW_COMMAND.name: ("cc8f6612e08e", "a6c7b8e2dd75"),
    GO_LOW_STATE.name: ("962a30f8f855", "5bf4b7ff88d1"),
    HG_LOW_COMMAND.name: ("a1d866061f81", "84f95b201fd0"),
    HG_LOW_STATE.name: ("760abdb429f9", "6505d3c156e4"),
}


def check_digests(*structs: Struct) -> None:
    """What a robot will be told of our types is what it expects.

    Raises:
        DriverError: it is not, with the cyclonedds installed here.
    """
    for struct in structs:
        told = tuple(digest[:12] for digest in digests(struct))
        if told != DIGESTS[struct.name]:
            raise DriverError(
                f"{struct.name}: the installed cyclonedds describes this type as "
                f"{'/'.join(told)}, the robot as {'/'.join(DIGESTS[struct.name])}; its firmware "
                "may crash of that, so nothing was sent. Install cyclonedds 11.0.1"
            )
