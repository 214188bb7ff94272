module weft/guest

go 1.24
