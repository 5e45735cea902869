import Longspan

/// What `longspan generate` says of drafts.
struct DraftReport: Encodable {
  let passes: Int
  let tokens: Int
  let drafted: Int
  let accepted: Int
  let acceptanceRate: Double
  let meanAccepted: Double
  let tokensPerPass: Double
  let draftedByPosition: [Int]
  let acceptedByPosition: [Int]

  init(_ statistics: DraftStatistics) {
    passes = statistics.passes
    tokens = statistics.tokens
    drafted = statistics.drafted
    accepted = statistics.accepted
    acceptanceRate = statistics.acceptanceRate
    meanAccepted = statistics.meanAccepted
    tokensPerPass = statistics.tokensPerPass
    draftedByPosition = statistics.draftedByPosition
    acceptedByPosition = statistics.acceptedByPosition
  }

  var summary: String {
    "\(accepted) of \(drafted) drafted tokens accepted (\(decimal(meanAccepted, 2)) a pass), "
      + "\(decimal(tokensPerPass, 2)) tokens a pass"
  }
}
