"""How β, the price of KL, moves: once per update, from the KL measured over the whole batch after the last epoch."""


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


def _within(beta: float, bounds: tuple[float, float]) -> float:
    return min(max(beta, bounds[0]), bounds[1])
