"""Numbers that gdjax must reproduce: computed with NumPy, SciPy, mpmath and PyTorch, never with JAX.

They are copied from the project's reference computation; every constant carries the id it has there. "After k" means after k updates
from zero. The notebook's data are `rng = default_rng(42); x = linspace(0, 10, 80); y = 2.5 + 1.7 x + rng.normal(0, 1, 80)`, its loss is
J(theta) = (1/n) ||[1 x] theta - y||^2.
"""

from __future__ import annotations

# N01 to N09: the notebook's problem
NOTEBOOK_MINIMIZER = [2.546738625743012, 1.6957965096526233]  # N01: intercept, slope
NOTEBOOK_MINIMUM = 0.5920221410995287  # N02
NOTEBOOK_OBJECTIVE_AT_ZERO, NOTEBOOK_OBJECTIVE_AT_TRUTH = 146.72962443981478, 0.5928346920246028  # N03: truth is (2.5, 1.7)
NOTEBOOK_GRAM_EIGENVALUES = [0.2491401964683796, 34.29516360099998]  # N04: of X'X/n with the column of ones; H is twice that
NOTEBOOK_CONDITION_NUMBER = 137.65407624759843  # N05
NOTEBOOK_CRITICAL_RATE = 0.029158630401484423  # N06: 2 / lambda_max(H)
NOTEBOOK_BEST_RATE = 0.02894833272260901  # N07: 2 / (L + mu)
NOTEBOOK_BEST_FACTOR = 0.9713592897211271  # N08: of the loss in a step at that rate, ((kappa - 1) / (kappa + 1))^2
NOTEBOOK_GRADIENT_AT_ZERO = [-22.05144234801226, -139.2360128543783]  # N09

# N10: objective after k updates of gradient descent, by learning rate
NOTEBOOK_OBJECTIVE_AFTER = {
    0.001: {
        1: 127.538193126527,
        10: 36.834217083011296,
        100: 1.7507003925243767,
        200: 1.640683898201725,
        400: 1.451141860390445,
        1000: 1.0644205857005042,
    },
    0.01: {
        1: 16.150497780144715,
        10: 1.7503430748865823,
        100: 1.0633623030400234,
        200: 0.7655829718702392,
        400: 0.6155556273012153,
        1000: 0.5920808075630002,
    },
    0.02: {
        1: 21.87178550538062,
        10: 1.6396883985327357,
        100: 0.7647146416430323,
        200: 0.6153207388270497,
        400: 0.5924462158280712,
        1000: 0.59202214365682,
    },
    0.025: {
        1: 75.84508476233832,
        10: 1.7636392484286274,
        100: 0.6963545648531602,
        200: 0.6005261052390342,
        400: 0.5920786381359325,
        1000: 0.5920221411160954,
    },
    0.029: {
        1: 143.55779875718753,
        10: 117.93895008687664,
        100: 16.90567631471718,
        200: 2.417377891198225,
        400: 0.6149393183456459,
        1000: 0.5920221866467531,
    },
}

NOTEBOOK_PARAMS_AFTER_400 = [2.2428050970213804, 1.7414388035851427]  # N11: learning rate 0.01

# N12: the notebook's own run, learning rate 0.05 for 400 updates, which diverges
DIVERGED_PARAMS_AFTER_400 = [-4.926421493089572e153, -3.280520191597999e154]
DIVERGED_OBJECTIVE_AFTER_1 = 856.8381349905242
DIVERGED_NONFINITE = 6  # of the 400 losses, when squares are summed before the division by n

# N13: first update whose loss is not finite, when squares are summed before the division by n
FIRST_NONFINITE_LOSS = {
    "float32": {0.05: 45, 0.2: 16, 0.5: 12},
    "float64": {0.05: 395, 0.2: 138, 0.5: 100},
}
# N14: first update whose parameters are not finite, when X'(X theta - y) is formed before the division by n; within one update
FIRST_NONFINITE_PARAMS = {
    "float32": {0.05: 92, 0.2: 33, 0.5: 24},
    "float64": {0.05: 791, 0.2: 277, 0.5: 202},
}
GROWTH = {0.05: 2.4295163600999983, 0.2: 12.718065440399991, 0.5: 33.29516360099998}  # N15: of |theta| in a step, diverging

# N16, N17: updates until an improvement below 1e-6 for 10 consecutive updates, and the excess loss J - J* that is left there
EARLY_STOP = {
    0.001: (7184, 0.000993575721949),
    0.002: (3944, 0.000491566003815),
    0.005: (1766, 0.00019090492563),
    0.01: (957, 9.01487026868e-05),
    0.02: (517, 4.07012989397e-05),
    0.025: (424, 3.09538145841e-05),
    0.028: (383, 2.71130740328e-05),
    0.029: (694, 3.6833589969e-05),
    0.02894833272260901: (535, 2.58825694491e-05),
}

# N18 to N20: mini-batches of 16 of 80, `default_rng(42).choice(80, 16, replace=False)` anew in every step
MINIBATCH_PARAMS_AFTER_400 = {
    0.001: [0.7126459126422422, 1.9731711350761254],
    0.005: [1.7273874137325094, 1.8309780632535746],
    0.01: [2.249164122965717, 1.7639146898563385],
    0.02: [2.5065991190551156, 1.735215111289268],
    0.05: [-2.6851775382075127e142, -1.854312952589875e143],
}
MINIBATCH_OBJECTIVE_AFTER = {
    0.001: {
        1: 121.31471367449171,
        2: 107.51166925694618,
        10: 39.16714797487106,
        100: 1.747775468157678,
        200: 1.6354793043995826,
        400: 1.4493978904455405,
    },
    0.005: {
        1: 44.155454598071586,
        2: 22.981802008940242,
        10: 1.8168906373794578,
        100: 1.3601614589484943,
        200: 1.054723123200063,
        400: 0.7687372183344371,
    },
    0.01: {
        1: 2.832244718508907,
        2: 2.151529029246701,
        10: 1.8676757464761002,
        100: 1.0567724201348612,
        200: 0.7606765216577624,
        400: 0.6335188600998317,
    },
    0.02: {
        1: 103.93870484592506,
        2: 7.984238011910537,
        10: 1.9620884589932026,
        100: 0.7597932005348577,
        200: 0.6614071606185796,
        400: 0.6299329054478455,
    },
    0.05: {
        1: 1877.2811243205058,
        2: 7939.10413754207,
        10: 639036448.7299232,
        100: 1.1118504603521169e74,
        200: 8.186917637731802e146,
        400: 1.2039256246660886e288,
    },
}
MINIBATCH_FIRST_INDICES = [29, 5, 73, 56, 50, 43, 39, 59, 62, 78, 68, 6, 60, 74, 51, 14]  # N20

# N30: condition number, and steps to 1e-6 of the start's suboptimality at the rate 2 / (L + mu), by version of the notebook's feature
NOTEBOOK_VERSIONS = {
    "raw": (137.6540762475984, 476),
    "x / 10": (18.819343257945707, 65),
    "x / std": (22.21974120308439, 77),
    "centred": (8.544303797468356, 30),
    "standardised": (1.0000000000000007, 1),
    "to [−1, 1]": (2.9259259259259256, 10),
}

# C01: f = x' diag(geomspace(0.01, 1, 50)) x / 2 from x_0 = 1, f after t updates; L = 1, mu = 0.01
SPECTRUM_AT_START = 5.523282560115838
SPECTRUM_GRADIENT_DESCENT = {  # by learning rate
    1.0: {1: 1.723104051638021, 10: 0.2071544092852237, 50: 0.02000292701709482, 100: 0.003851042464784523, 200: 0.0002827843890941338},
    2 / 1.01: {
        1: 1.948277470029028,
        10: 0.4265265209691506,
        50: 0.07153532390746094,
        100: 0.009444497395556457,
        200: 0.0001708201176110909,
    },
    0.1: {1: 4.960105714053164, 10: 2.235736534391911, 50: 0.4783397193538647, 100: 0.2184858767277478, 200: 0.09048505040395289},
    1.9: {1: 1.782964303090944, 10: 0.1524368722035474, 50: 0.004379883479144518, 100: 0.0003510885180457108, 200: 4.471744181948064e-6},
}
SPECTRUM_HEAVY_BALL = {  # learning rate 4 / (1 + 0.1)^2, momentum (9 / 11)^2
    1: 8.473116195532845,
    10: 3.403100107766152,
    50: 8.151259273443954e-6,
    100: 6.212847708597821e-14,
    200: 9.176939202910621e-31,
}
SPECTRUM_NESTEROV = {  # learning rate 1, momentum 9 / 11
    1: 1.723104051638021,
    10: 0.04819270844232632,
    50: 8.51274975103678e-6,
    100: 4.771354036414086e-10,
    200: 1.110922386776536e-18,
}
SPECTRUM_NESTEROV_CONVEX = {  # learning rate 1, momentum t / (t + 3)
    1: 1.723104051638021,
    10: 0.08298379766888606,
    50: 0.0002925945688366696,
    100: 1.068516225430572e-5,
    200: 3.929666391578342e-7,
}

# C11: least squares on scikit-learn's diabetes data (442 x 10, unscaled); standardised by the population's standard deviation
DIABETES_MINIMUM = 2859.6963475867506
DIABETES_AT_ZERO = 29074.481900452487
DIABETES_RAW_GRAM = (0.0014053651800501974, 73592.42170699894, 52365337.31707394)  # smallest, largest, ratio; with the column of ones
DIABETES_STANDARDISED_GRAM = (0.008560729827053424, 4.024210750152786, 470.0779993588358)
DIABETES_STANDARDISED_MINIMIZER = [
    152.13348416289597,
    -0.476120786179135,
    -11.40686692344099,
    24.72654886040219,
    15.429404131395613,
    -37.67995261101578,
    22.67616276629004,
    4.8061381368978155,
    8.422039355820804,
    35.73444577133102,
    3.216673718190506,
]

# C12: mean log-loss + 0.005 ||w||^2 on scikit-learn's breast-cancer data (569 x 30), standardised, intercept not penalised
BREAST_CANCER_MINIMUM = 0.0995913754847055
# b, w1, .. w4:
BREAST_CANCER_FIRST_PARAMS = [0.49526969109017205, -0.4160541730432581, -0.4549787227601747, -0.4039436206204011, -0.4140920994957194]
BREAST_CANCER_STRONG_CONVEXITY = 0.009708760338492217  # at the minimizer
BREAST_CANCER_SMOOTHNESS = 3.330401920564478  # the global bound lambda_max(X'X/n) / 4 + 0.01
BREAST_CANCER_ACCURACY = 0.9859402460456942
DIABETES_STANDARDISED_STEPS = 1313  # to 1e-6 of the start's suboptimality, at the rate 2 / (L + mu)
