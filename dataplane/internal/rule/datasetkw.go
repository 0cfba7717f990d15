package rule

type datasetOp struct{}

func (*datasetOp) match(*Matcher, []byte) bool { return false }

type entropyOp struct{}

func init() {
	refuse("data sets are not kept yet", "dataset", "datarep", "filemd5", "filesha1", "filesha256")
	refuse("no such keyword here", "entropy")
	refuse("no country table is given", "geoip")
}
