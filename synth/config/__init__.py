"""The recipe's sections that this room reads: prompts, teacher, engine, sample, verify, curate, persona.

Pure pydantic: importing this package loads no engine. ``distill/recipe.py`` composes these into a recipe.
Every section is frozen and refuses unknown keys; ``kind:`` (or ``source:``) selects the member of a union.
"""

from __future__ import annotations

from synth.config.curate import CurateConfig
from synth.config.engine import EngineConfig, LocalEngine, RayEngine
from synth.config.judge import JudgeConfig
from synth.config.label import DecontaminateConfig, LabelConfig, NearDuplicatesConfig
from synth.config.persona import PersonaConfig
from synth.config.prompts import HubPrompts, JsonlPrompts, PromptsConfig, ReasoningGymPrompts
from synth.config.sample import (
    AdaptivePolicy,
    BudgetConfig,
    EscalateConfig,
    FixedPolicy,
    SampleConfig,
    TeacherSampling,
    TokenPrice,
    TracesBrought,
)
from synth.config.section import OnBadRow, ProblemKind, RanBy, Section
from synth.config.served import OpenAITeacher, ServedTeacher, VllmServerTeacher
from synth.config.several import Member, SeveralTeachers, TeachersConfig, members_of
from synth.config.teacher import (
    AutoTeacher,
    FakeTeacher,
    RecordedTeacher,
    TeacherConfig,
    TransformersTeacher,
    VllmTeacher,
)
from synth.config.teacher_fields import Example
from synth.config.verify import FormatConfig, MajorityConfig, VerifyConfig

__all__ = [
    "AdaptivePolicy",
    "AutoTeacher",
    "BudgetConfig",
    "CurateConfig",
    "DecontaminateConfig",
    "EngineConfig",
    "EscalateConfig",
    "Example",
    "FakeTeacher",
    "FixedPolicy",
    "FormatConfig",
    "HubPrompts",
    "JsonlPrompts",
    "JudgeConfig",
    "LabelConfig",
    "LocalEngine",
    "MajorityConfig",
    "Member",
    "NearDuplicatesConfig",
    "OnBadRow",
    "OpenAITeacher",
    "PersonaConfig",
    "ProblemKind",
    "PromptsConfig",
    "RanBy",
    "RayEngine",
    "ReasoningGymPrompts",
    "RecordedTeacher",
    "SampleConfig",
    "Section",
    "ServedTeacher",
    "SeveralTeachers",
    "TeacherConfig",
    "TeacherSampling",
    "TeachersConfig",
    "TokenPrice",
    "TracesBrought",
    "TransformersTeacher",
    "VerifyConfig",
    "VllmServerTeacher",
    "VllmTeacher",
    "members_of",
]
