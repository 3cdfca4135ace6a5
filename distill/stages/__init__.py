"""The pipeline, and one file for each stage.

To change X, edit Y:

    the order of the stages and what each depends on   pipeline.py
    one stage                                          the file of its name (of train_control and train_2 train.py,
                                                       and so on; of sample_2 sample_student.py)
"""
