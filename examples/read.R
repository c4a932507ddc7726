# One batch in R: obs as text, X from the .h5ad with rhdf5.   Usage: Rscript read.R MOUNT
mount <- commandArgs(trailingOnly = TRUE)[1]

# The labels need nothing but base R.
obs <- read.delim(file.path(mount, "epoch-0000", "batch-000000.tsv"), quote = "", na.strings = "")
print(head(obs))

# X: CSR in the file is the transpose of what Matrix stores by column, so genes come out as rows.
file <- file.path(mount, "epoch-0000", "batch-000000.h5ad")
read <- function(name) rhdf5::h5read(file, name)
genes <- nrow(read.delim(file.path(mount, "var.tsv"), quote = ""))
x <- Matrix::sparseMatrix(i = as.integer(read("X/indices")), p = as.integer(read("X/indptr")),
                          x = as.numeric(read("X/data")), dims = c(genes, nrow(obs)), index1 = FALSE)
print(dim(x))
