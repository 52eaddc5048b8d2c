# Read by every R (R_PROFILE), with the site's own profile of its environment before it. In an
# environment that others use, install.packages answers with a copy of one's own, in a notebook as
# a button; in one's own it is R's.
local({
  theirs <- file.path(R.home("etc"), "Rprofile.site")
  if (file.exists(theirs)) sys.source(theirs, envir = baseenv())

  answered <- function(packages) {
    library <- .libPaths()[1L]
    if (file.access(library, 2L) == 0L) return(FALSE)
    in_notebook <- isNamespaceLoaded("IRkernel") && requireNamespace("IRdisplay", quietly = TRUE)
    left <- if (in_notebook) tempfile("labcommons-offer-") else ""
    words <- c("-I", "-m", "kernels.packages", "r", dirname(dirname(R.home())), packages)
    said <- suppressWarnings(system2(
      paste0(Sys.getenv("LABCOMMONS_PARTS", "/opt/labcommons"), "/server/bin/python"),
      shQuote(words), stdout = TRUE, stderr = TRUE,
      env = if (in_notebook) paste0("LABCOMMONS_OFFER=", shQuote(left)) else character()
    ))
    message(paste(said, collapse = "\n"))
    if (in_notebook && file.exists(left)) {
      offer <- jsonlite::fromJSON(readLines(left, 1L, encoding = "UTF-8"), simplifyVector = FALSE)
      unlink(left)
      IRdisplay::publish_mimebundle(list(
        "application/vnd.labcommons.packages+json" = offer, "text/plain" = offer$command
      ))
    }
    TRUE
  }

  setHook(packageEvent("utils", "attach"), function(...) {
    utils <- asNamespace("utils")
    real <- utils$install.packages
    ours <- function(pkgs, lib, repos, ...) {
      # A folder that somebody names, and files of packages, are R's own business.
      plain <- !missing(pkgs) && missing(lib) && is.character(pkgs) && !any(grepl("/|[.](tar[.]gz|tgz|zip)$", pkgs))
      if (plain && (missing(repos) || !is.null(repos)) && answered(pkgs)) return(invisible(NULL))
      call <- sys.call()
      call[[1L]] <- real
      eval(call, parent.frame())
    }
    for (where in list(utils, as.environment("package:utils"))) {
      unlockBinding("install.packages", where)
      assign("install.packages", ours, envir = where)
      lockBinding("install.packages", where)
    }
  })
})
