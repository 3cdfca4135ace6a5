"""Where a teacher's requests run: in this process or on Ray.

To change which teacher a recipe opens, edit `open.py`; delivery, restarts and suspects on the driver, `ray.py`; the
process on a node, `replica.py`; how many nodes a replica takes, `placement.py`; joining a cluster and resources of a
replica, `cluster.py`; the recipe's section `engine`, `config.py`.
"""
