package wire

var Making = making
