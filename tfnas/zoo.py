"""The networks that training-free programs have published, and where their searches began.

tfnas.zoo.names()
tfnas.zoo.facts("zennet_imagenet1k_flops400M_res224").published["imagenet1k_top1"]
tfnas.zoo.build("zennet_imagenet1k_flops400M_res224", num_classes=1000, use_se=False)
"""

from tfnas.spaces.zen.zoo_networks import Facts, build, facts, names

__all__ = ["Facts", "build", "facts", "names"]
