# nbgrader of an environment goes by the site's courses and hand-ins: no folder that all write.
import sys

if "/opt/labcommons/lib" not in sys.path:
    sys.path.append("/opt/labcommons/lib")
c.ExchangeFactory.exchange = "labcommons_nbgrader.Exchange"  # noqa: F821
c.ExchangeFactory.list = "labcommons_nbgrader.ExchangeList"  # noqa: F821
c.ExchangeFactory.release_assignment = "labcommons_nbgrader.ExchangeReleaseAssignment"  # noqa: F821
c.ExchangeFactory.fetch_assignment = "labcommons_nbgrader.ExchangeFetchAssignment"  # noqa: F821
c.ExchangeFactory.submit = "labcommons_nbgrader.ExchangeSubmit"  # noqa: F821
c.ExchangeFactory.collect = "labcommons_nbgrader.ExchangeCollect"  # noqa: F821
c.ExchangeFactory.release_feedback = "labcommons_nbgrader.ExchangeReleaseFeedback"  # noqa: F821
c.ExchangeFactory.fetch_feedback = "labcommons_nbgrader.ExchangeFetchFeedback"  # noqa: F821
