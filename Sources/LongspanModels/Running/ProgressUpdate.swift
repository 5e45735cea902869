import LongspanKernels

/// How far a long operation has come.
public struct ProgressUpdate: Sendable, Equatable {
  /// What is being done, for people: "reading", "scoring".
  public let stage: String
  /// Units of work done, of ``total``.
  public let completed: Int
  /// Units of work in all.
  public let total: Int

  /// An update on a stage.
  public init(stage: String, completed: Int, total: Int) {
    self.stage = stage
    self.completed = completed
    self.total = total
  }
}

/// Sees progress and returns whether to go on; on false the operation throws
/// ``/LongspanKernels/LongspanError/Code/cancelled``.
public typealias ProgressHandler = (ProgressUpdate) -> Bool

func report(_ progress: ProgressUpdate, to handler: ProgressHandler?) throws(LongspanError) {
  guard let handler, !handler(progress) else { return }
  throw LongspanError(.cancelled, "\(progress.stage): stopped at \(progress.completed) of \(progress.total)")
}
