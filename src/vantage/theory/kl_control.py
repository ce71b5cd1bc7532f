"""How β, the price of KL, and a learning rate move: once per update, from the KL measured over the whole batch after
the last epoch.
"""


def threshold_beta(
    beta: float, kl: float, kl_min: float, kl_max: float, factor: float = 2.0, bounds: tuple[float, float] = (1e-6, 1e6)
) -> float:
    """Two thresholds, both inclusive.

        KL ≥ KL_max: β ← β · factor        KL ≤ KL_min: β ← β / factor        else β stays

    Units: KL in nats per step, β in Ψ per nat; β stays within `bounds`. Source: theory 8.6.
    """
    if kl >= kl_max:
        beta = beta * factor
    elif kl <= kl_min:
        beta = beta / factor
    return _within(beta, bounds)


def paper_beta(
    beta: float,
    kl: float,
    target: float,
    band: float = 1.5,
    factor: float = 2.0,
    bounds: tuple[float, float] = (1e-6, 1e6),
) -> float:
    """The rule of the PPO paper, both comparisons strict.

        d < d_targ / 1.5: β ← β / 2        d > 1.5 d_targ: β ← 2 β

    Units: nats per step. Source: Schulman et al. (2017) section 4.
    """
    if kl > band * target:
        beta = beta * factor
    elif kl < target / band:
        beta = beta / factor
    return _within(beta, bounds)


def proportional_beta(beta: float, kl: float, target: float, n: int, horizon: float, limit: float = 0.2) -> float:
    """The proportional rule of RLHF: β follows the relative error of the KL, by little steps.

        e = clip(KL / target − 1, −0.2, 0.2),    β ← β (1 + e n / horizon)

    Units: KL and target in nats per sequence, n and horizon in episodes. Source: Ziegler et al. (2019) section 2.2.
    """
    error = min(max(kl / target - 1.0, -limit), limit)
    return beta * (1.0 + error * n / horizon)


def adaptive_lr(
    lr: float,
    kl: float,
    target: float,
    band: float = 2.0,
    factor: float = 1.5,
    bounds: tuple[float, float] = (1e-5, 1e-2),
) -> float:
    """A learning rate that keeps the KL of an update near its target; both comparisons strict.

        KL > 2 target: lr ← lr / factor        0 < KL < target / 2: lr ← lr · factor        else lr stays

    Units: KL in nats per step; lr stays within `bounds`. Where nothing moved, KL = 0, it stays. Source: RSL-RL,
    `PPO.update` with schedule="adaptive"; Heess et al. (2017).
    """
    if kl > band * target:
        lr = lr / factor
    elif 0.0 < kl < target / band:
        lr = lr * factor
    return _within(lr, bounds)


def _within(x: float, bounds: tuple[float, float]) -> float:
    return min(max(x, bounds[0]), bounds[1])
