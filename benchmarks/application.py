"""A Hydra application of its own, which knows of gdjax the one line above its task.

`python application.py -m learning_rate=0.1,0.2 'seed=range(0,100)'` runs by Hydra's launcher, a job after the other;
`hydra/launcher=vmap hydra/sweeper=vmap` beside it runs all jobs as one program.
"""

import hydra
import jax
import jax.numpy as jnp

from gdjax.launcher import batchable


@hydra.main(version_base="1.3", config_path=".", config_name="application")
@batchable(learning_rate=float, seed=int)
def main(settings, learning_rate, seed):
    """Fit a line to noisy data by SGD; a number that is swept is an argument, all else is in the settings."""
    kx, ky, kb = jax.random.split(jax.random.PRNGKey(seed), 3)
    x = jax.random.normal(kx, (settings.num_examples,))
    y = 2.5 + 1.7 * x + jax.random.normal(ky, x.shape)
    batches = jax.random.randint(kb, (settings.num_steps, settings.batch_size), 0, settings.num_examples)

    def step(theta, batch):
        gradient = jax.grad(lambda theta: jnp.mean((theta[0] + theta[1] * x[batch] - y[batch]) ** 2))(theta)
        return theta - learning_rate * gradient, None

    theta, _ = jax.lax.scan(step, jnp.zeros(2), batches)
    return {"objective": jnp.mean((theta[0] + theta[1] * x - y) ** 2), "theta": theta}


if __name__ == "__main__":
    main()
