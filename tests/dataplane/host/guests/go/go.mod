module weft/test-guest

go 1.24

require weft/guest v0.0.0

replace weft/guest => ../../../../../sdk/go/weft
