"""Chinese in Matplotlib's plots, whatever fonts a notebook asks for.

Notebooks name fonts of Windows and macOS (``SimHei``, ``Microsoft YaHei``), and seaborn's
``set_theme`` forgets what matplotlibrc says; both would draw boxes. Here such names mean the font
that is installed, and it is the last one that is looked into.
"""

import dataclasses
from contextlib import suppress

FONT = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
# Families of Chinese sans-serif, serif and script fonts that are not here.
MEANT = (
    "SimHei", "SimSun", "NSimSun", "SimSun-ExtB", "KaiTi", "FangSong", "KaiTi_GB2312",
    "FangSong_GB2312", "LiSu", "YouYuan", "DengXian", "Microsoft YaHei", "Microsoft YaHei UI",
    "Microsoft JhengHei", "MingLiU", "PMingLiU", "Arial Unicode MS", "STHeiti", "STXihei",
    "STSong", "STZhongsong", "STKaiti", "STFangsong", "Heiti SC", "Heiti TC", "Songti SC",
    "Kaiti SC", "PingFang SC", "PingFang TC", "PingFang HK", "Hiragino Sans GB",
    "WenQuanYi Zen Hei", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Serif CJK SC",
    "Noto Serif CJK JP", "Noto Sans SC", "Noto Serif SC", "Source Han Sans SC",
    "Source Han Sans CN", "Source Han Serif SC", "Source Han Serif CN",
)  # fmt: skip


def mend(module):
    """Give ``matplotlib.font_manager`` the names, and the font as the last of all."""
    with suppress(Exception):  # a plot without Chinese is better than none
        _mend(module.fontManager, module.FontManager)


def _mend(manager, kind):
    if all(entry.fname != FONT for entry in manager.ttflist):
        manager.addfont(FONT)
    here = next(entry for entry in manager.ttflist if entry.fname == FONT)
    known = {entry.name for entry in manager.ttflist}
    manager.ttflist += [dataclasses.replace(here, name=name) for name in MEANT if name not in known]
    find = kind._find_fonts_by_props  # from 3.6, as is looking into several fonts

    def found(self, prop, fontext="ttf", *args, **more):
        fonts = find(self, prop, fontext, *args, **more)
        return fonts if fontext != "ttf" or FONT in fonts else [*fonts, FONT]

    kind._find_fonts_by_props = found
