"""The settings of the solvers of influence, one model each, told apart by `kind`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

FOLDER_OR_ID = "a folder, or a model id of the hub"  # metadata of settings that are one of the two


class Section(BaseModel):
    """A part of the settings; immutable, and strict about the names of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CGConfig(Section):
    """Conjugate gradients on the whole training data."""

    kind: Literal["cg"] = Field("cg", description="Conjugate gradients.")
    damping: float | None = Field(
        None, ge=0, description="Added to the Hessian's diagonal. null: from an estimate of its spectrum."
    )
    tol: float = Field(1e-3, gt=0, description="Largest accepted residual, relative to the right-hand side.")
    max_iter: int = Field(200, ge=1, description="Iterations at most, each one pass over the training data.")
    allow_unconverged: bool = Field(False, description="Accept a residual above tol (recorded in the manifest).")


class LiSSAConfig(Section):
    """Stochastic recursion (Algorithm 1 of the paper)."""

    kind: Literal["lissa"] = Field("lissa", description="Stochastic recursion.")
    damping: float | None = Field(
        None, ge=0, description="Added to the Hessian's diagonal. null: from an estimate of its spectrum."
    )
    scale: float | None = Field(
        None, gt=0, description="Divides the Hessian in the recursion. null: from an estimate of its spectrum."
    )
    depth: int = Field(5000, ge=1, description="Steps of the recursion.")
    repeats: int = Field(1, ge=1, description="Recursions that are averaged.")
    batch_size: int = Field(16, ge=1, description="Units per step. 1: as in the paper, and far noisier.")
    tol: float = Field(0.2, gt=0, description="Largest accepted residual, relative to the right-hand side.")
    allow_unconverged: bool = Field(False, description="Accept a residual above tol (recorded in the manifest).")


class ArnoldiConfig(Section):
    """The dominant eigenvectors, and the damping alone elsewhere (Schioppa et al., AAAI 2022)."""

    kind: Literal["arnoldi"] = Field("arnoldi", description="Dominant eigenvectors.")
    damping: float | None = Field(
        None, gt=0, description="Added to the Hessian's diagonal. null: from an estimate of its spectrum."
    )
    rank: int = Field(50, ge=1, description="Eigenvectors that are kept; each costs about one pass over the data.")
    tol: float = Field(0.1, gt=0, description="Largest accepted residual, relative to the right-hand side.")
    allow_unconverged: bool = Field(False, description="Accept a residual above tol (recorded in the manifest).")


class EKFACConfig(Section):
    """Factored Gauss-Newton matrix of linear layers and norms (George et al., NeurIPS 2018), in two passes."""

    kind: Literal["ekfac"] = Field("ekfac", description="Factored Gauss-Newton matrix.")
    damping: float | None = Field(
        None, gt=0, description="Added to the matrix's diagonal. null: from its own eigenvalues."
    )
    draws: int = Field(1, ge=1, description="Draws of labels from the model per unit.")


class IdentityConfig(Section):
    """No inverse at all: the product of the two gradients, for comparison."""

    kind: Literal["identity"] = Field("identity", description="The gradients' product, without the Hessian.")


def _solver_kind(value: Any) -> Any:
    return value.get("kind", "cg") if isinstance(value, dict) else getattr(value, "kind", None)


SolverConfig = Annotated[
    Annotated[CGConfig, Tag("cg")]
    | Annotated[LiSSAConfig, Tag("lissa")]
    | Annotated[ArnoldiConfig, Tag("arnoldi")]
    | Annotated[EKFACConfig, Tag("ekfac")]
    | Annotated[IdentityConfig, Tag("identity")],
    Discriminator(_solver_kind),
]
